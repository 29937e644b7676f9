"""What Ansible runs: static files, copied to nowhere but where Ansible takes them."""
