"""What the project's own work needs, and its users never see."""
