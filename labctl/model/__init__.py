"""The schema of lab.yaml: pydantic models at the boundary, and the rules that need more than one of them."""
