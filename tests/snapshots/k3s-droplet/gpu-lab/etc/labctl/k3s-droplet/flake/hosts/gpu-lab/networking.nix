# made by labctl from lab.yaml: edit that instead
{ pkgs, ... }:
{
  networking.firewall = {
    enable = true;
    # the tailnet and the cluster's own pods
    trustedInterfaces = [ "tailscale0" "cni0" "flannel.1" ];
  };

  services.openssh = {
    enable = true;
    settings = {
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      PermitRootLogin = "prohibit-password";
    };
  };

  # labctl logs in with it
  environment.systemPackages = [ pkgs.python3 ];

  users.users.root.openssh.authorizedKeys.keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVDb6EdOcouHQzNY/sptWHfd6tuJZdApBFxWPFKmXp2 you@workstation"
  ];
}
