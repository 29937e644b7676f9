# made by labctl from lab.yaml: edit that instead
{ lib, ... }:
{
  imports = [ ./gpu.nix ./hardware.nix ./k3s.nix ./networking.nix ./tailscale.nix ];
  networking.hostName = "gpu-lab";
  nix.settings.experimental-features = [ "nix-command" "flakes" ];
  nixpkgs.hostPlatform = "x86_64-linux";

  nixpkgs.config.allowUnfreePredicate = pkg: builtins.elem (lib.getName pkg) [
    "nvidia-persistenced"
    "nvidia-x11"
  ];

  # the release that the machine was installed with, not the one it runs: leave it
  system.stateVersion = "26.05";
}
