# made by labctl from lab.yaml: edit that instead
{
  imports = [ ./gpu.nix ./hardware.nix ./networking.nix ./services.nix ];
  networking.hostName = "ember";
  nix.settings.experimental-features = [ "nix-command" "flakes" ];
  nixpkgs.hostPlatform = "x86_64-linux";

  # the release that the machine was installed with, not the one it runs: leave it
  system.stateVersion = "26.05";
}
