# made by labctl from lab.yaml: edit that instead
{ pkgs, ... }:
{
  services.k3s = {
    enable = true;
    role = "server";
    nodeName = "gpu-lab";
    nodeLabel = [ "nvidia.com/gpu.present=true" ];
    disable = [ "traefik" ];
    extraFlags = [
      "--tls-san=gpu-lab.tail1234.ts.net"
      "--kube-proxy-arg=nodeport-addresses=100.64.0.0/10"
    ];
    manifests.nvidia-cdi.content = {
      apiVersion = "node.k8s.io/v1";
      kind = "RuntimeClass";
      metadata.name = "nvidia-cdi";
      handler = "nvidia-cdi";
    };
  };

  systemd.services.k3s = {
    path = [ pkgs.nvidia-container-toolkit.tools ];
    after = [ "nvidia-container-toolkit-cdi-generator.service" ];
    wants = [ "nvidia-container-toolkit-cdi-generator.service" ];
  };
}
