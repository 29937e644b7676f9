# made by labctl from lab.yaml: edit that instead
{ lib, pkgs, ... }:
{
  services.llama-cpp = {
    enable = true;
    package = pkgs.llama-cpp-vulkan;
    model = "/var/lib/labctl/models/bartowski--Llama-3.1-8B-Stheno-v3.4-GGUF/Llama-3.1-8B-Stheno-v3.4-Q4_K_M.gguf";
    host = "192.0.2.11";
    port = 28037;
    extraFlags = [
      "--alias"
      "stheno"
      "--ctx-size"
      "16384"
      "--parallel"
      "2"
      "--batch-size"
      "2048"
      "--ubatch-size"
      "512"
      "--gpu-layers"
      "999"
      "--fit"
      "off"
      "--metrics"
      "--no-webui"
      "--flash-attn"
      "auto"
      "--cache-type-k"
      "f16"
      "--cache-type-v"
      "f16"
      "--jinja"
    ];
  };

  systemd.services.llama-cpp = {
    serviceConfig = {
      SupplementaryGroups = [ "video" "render" ];
      # the module waits five minutes
      RestartSec = lib.mkForce 10;
      # drivers compile kernels and shaders for the card when a model is loaded
      MemoryDenyWriteExecute = lib.mkForce false;
      # threads are chosen by /proc/cpuinfo, cards found in /proc/driver
      ProcSubset = lib.mkForce "all";
    };
    wants = [ "network-online.target" ];
    after = [ "network-online.target" ];
  };
}
