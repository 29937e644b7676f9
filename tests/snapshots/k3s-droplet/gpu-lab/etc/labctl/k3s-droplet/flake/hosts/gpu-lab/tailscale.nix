# made by labctl from lab.yaml: edit that instead
{
  services.tailscale = {
    enable = true;
    authKeyFile = "/var/lib/labctl/k3s-droplet/secrets/tailscale";
  };
}
