"""labctl on a real Kubernetes API server (``tests/rig/kube``)."""
