"""How written Nix looks: as somebody would write it who runs NixOS, and nixfmt would leave most of it alone."""

from __future__ import annotations

from pathlib import Path

from labctl.emit import nix
from labctl.emit.nix import Call, Lambda, Noted, PathRef, Ref, Text, Value
from tests.nix import real_nix

UNFREE = ["nvidia-x11", "nvidia-settings", "cuda_cudart"]
HOST: dict[str, Value] = {
    "imports": [PathRef("./hardware.nix"), PathRef("./gpu.nix")],
    "networking": {
        "hostName": "gpu-lab",
        "firewall": {"allowedTCPPorts": [22], "trustedInterfaces": ["tailscale0"]},
    },
    "fileSystems": {"/": {"device": "/dev/disk/by-label/nixos", "fsType": "ext4"}},
    "nixpkgs": {
        "hostPlatform": "x86_64-linux",
        "config": {
            "allowUnfreePredicate": Lambda(
                "pkg",
                Call(
                    "builtins.elem", Call("lib.getName", Ref("pkg")), ["nvidia-x11", "nvidia-settings", "cuda_cudart"]
                ),
            )
        },
    },
    "hardware": {
        "nvidia": {
            "open": Noted(value=True, comment="a Turing card or a newer one"),
            "package": Ref("config.boot.kernelPackages.nvidiaPackages.stable"),
            "nvidiaSettings": False,
        },
    },
    "services": {
        "xserver": {"videoDrivers": ["nvidia"]},
        "ollama": {"enable": True, "package": Ref("pkgs.ollama-cuda"), "port": 11434},
        "litellm": {
            "enable": True,
            "environmentFile": "/var/lib/labctl/lab/secrets/litellm.env",
            "settings": {
                "model_list": [
                    {"model_name": "chat", "litellm_params": {"model": "ollama_chat/llama3.1:8b", "rpm": 5}},
                    {"model_name": "code"},
                ],
                "general_settings": {},
            },
        },
        "prometheus": {"scrapeConfigs": [{"job_name": "node", "static_configs": [{"targets": ["127.0.0.1:9100"]}]}]},
    },
    "systemd": {
        "services": {
            "chat": {
                "after": ["network.target"],
                "serviceConfig": {"ExecStart": Text(Ref("pkgs.llama-cpp"), "/bin/llama-server --port 8081")},
                "preStart": 'mkdir -p "$HOME/models"\n\nif [[ -n ${CLEAN} ]]; then\n  rm -rf "$HOME/tmp"\nfi\n',
            },
        },
        "tmpfiles": {"rules": Call("lib.mkAfter", ["d /srv/models 0755 root root -" for _ in range(2)])},
    },
    "system": {"stateVersion": "26.05"},
}

WRITTEN = """\
# made by labctl from lab.yaml: edit that instead
{ config, lib, pkgs, ... }:
{
  imports = [ ./hardware.nix ./gpu.nix ];
  networking.hostName = "gpu-lab";

  networking.firewall = {
    allowedTCPPorts = [ 22 ];
    trustedInterfaces = [ "tailscale0" ];
  };

  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };

  nixpkgs.hostPlatform = "x86_64-linux";

  nixpkgs.config.allowUnfreePredicate = pkg: builtins.elem (lib.getName pkg) [
    "nvidia-x11"
    "nvidia-settings"
    "cuda_cudart"
  ];

  hardware.nvidia = {
    # a Turing card or a newer one
    open = true;
    package = config.boot.kernelPackages.nvidiaPackages.stable;
    nvidiaSettings = false;
  };

  services.xserver.videoDrivers = [ "nvidia" ];

  services.ollama = {
    enable = true;
    package = pkgs.ollama-cuda;
    port = 11434;
  };

  services.litellm = {
    enable = true;
    environmentFile = "/var/lib/labctl/lab/secrets/litellm.env";
    settings = {
      model_list = [
        {
          model_name = "chat";
          litellm_params = {
            model = "ollama_chat/llama3.1:8b";
            rpm = 5;
          };
        }
        { model_name = "code"; }
      ];
      general_settings = { };
    };
  };

  services.prometheus.scrapeConfigs = [
    {
      job_name = "node";
      static_configs = [ { targets = [ "127.0.0.1:9100" ]; } ];
    }
  ];

  systemd.services.chat = {
    after = [ "network.target" ];
    serviceConfig.ExecStart = "${pkgs.llama-cpp}/bin/llama-server --port 8081";
    preStart = \'\'
      mkdir -p "$HOME/models"

      if [[ -n \'\'${CLEAN} ]]; then
        rm -rf "$HOME/tmp"
      fi
    \'\';
  };

  systemd.tmpfiles.rules = lib.mkAfter [
    "d /srv/models 0755 root root -"
    "d /srv/models 0755 root root -"
  ];

  system.stateVersion = "26.05";
}
"""


def test_a_host(tmp_path: Path) -> None:
    written = nix.module(("config", "lib", "pkgs"), HOST)
    assert written == WRITTEN
    (tmp_path / "host.nix").write_text(written, encoding="utf-8")
    real_nix.parse(tmp_path / "host.nix")


def test_a_flake(tmp_path: Path) -> None:
    outputs = {
        "nixosConfigurations": {
            "gpu-lab": Call("nixpkgs.lib.nixosSystem", {"modules": [PathRef("./hosts/gpu-lab")]}),
            "store": Call(
                "nixpkgs.lib.nixosSystem",
                {"modules": [PathRef("./hosts/store"), Ref("sops-nix.nixosModules.sops")], "specialArgs": {}},
            ),
        }
    }
    written = nix.module(
        (),
        {
            "description": "The lab `gpu-lab`",
            "inputs": {
                "nixpkgs": {"url": "github:NixOS/nixpkgs/nixos-26.05"},
                "sops-nix": {"url": "github:Mic92/sops-nix", "inputs": {"nixpkgs": {"follows": "nixpkgs"}}},
            },
            "outputs": Lambda(("nixpkgs", "sops-nix"), outputs),
        },
    )
    assert written == (
        "# made by labctl from lab.yaml: edit that instead\n"
        "{\n"
        '  description = "The lab `gpu-lab`";\n'
        '  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";\n'
        "\n"
        "  inputs.sops-nix = {\n"
        '    url = "github:Mic92/sops-nix";\n'
        '    inputs.nixpkgs.follows = "nixpkgs";\n'
        "  };\n"
        "\n"
        "  outputs =\n"
        "    { nixpkgs, sops-nix, ... }:\n"
        "    {\n"
        "      nixosConfigurations = {\n"
        "        gpu-lab = nixpkgs.lib.nixosSystem { modules = [ ./hosts/gpu-lab ]; };\n"
        "        store = nixpkgs.lib.nixosSystem {\n"
        "          modules = [ ./hosts/store sops-nix.nixosModules.sops ];\n"
        "          specialArgs = { };\n"
        "        };\n"
        "      };\n"
        "    };\n"
        "}\n"
    )
    (tmp_path / "flake.nix").write_text(written, encoding="utf-8")
    real_nix.parse(tmp_path / "flake.nix")
