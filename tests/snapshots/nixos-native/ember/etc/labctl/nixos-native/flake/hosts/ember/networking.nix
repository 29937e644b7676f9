# made by labctl from lab.yaml: edit that instead
{ pkgs, ... }:
{
  networking.firewall = {
    enable = true;
    interfaces.enp5s0.allowedTCPPorts = [ 28037 ];
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
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvcmFuZXhhbXBsZW9mYXB1YmxpY2tleWluYWxhYg ann@desk"
  ];
}
