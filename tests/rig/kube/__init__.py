"""A real Kubernetes control plane on loopback, with nodes that are not there and a fake kubelet.

Real: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, as ``tests/tools/install-kube`` builds them.
Fake, and named so: the nodes' kubelets, the storage provisioner and k3s's Helm controller (``fakes.py``).

``python -m tests.rig.kube up FOLDER`` starts one by hand and prints its kubeconfig; ``down FOLDER`` ends it.
"""
