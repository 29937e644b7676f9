# made by labctl from lab.yaml: edit that instead
{ lib, ... }:
{
  imports = [ ./gpu.nix ./hardware.nix ./networking.nix ./services.nix ];
  networking.hostName = "hearth";
  nix.settings.experimental-features = [ "nix-command" "flakes" ];
  nixpkgs.hostPlatform = "x86_64-linux";

  nixpkgs.config.allowUnfreePredicate = pkg: builtins.elem (lib.getName pkg) [
    "cccl"
    "cuda_cccl"
    "cuda_crt"
    "cuda_cudart"
    "cuda_nvcc"
    "cuda_nvrtc"
    "libcublas"
    "libnvptxcompiler"
    "libnvvm"
    "nvidia-persistenced"
    "nvidia-x11"
    "open-webui"
  ];

  # the release that the machine was installed with, not the one it runs: leave it
  system.stateVersion = "26.05";
}
