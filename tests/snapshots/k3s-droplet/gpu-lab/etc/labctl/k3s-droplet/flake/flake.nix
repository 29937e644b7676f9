# made by labctl from lab.yaml: edit that instead
{
  description = "gpu-lab of lab k3s-droplet";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  inputs.disko = {
    url = "github:nix-community/disko";
    inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, disko, ... }:
    {
      nixosConfigurations.gpu-lab = nixpkgs.lib.nixosSystem {
        modules = [ ./hosts/gpu-lab disko.nixosModules.disko ];
      };
    };
}
