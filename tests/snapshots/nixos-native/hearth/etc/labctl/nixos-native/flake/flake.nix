# made by labctl from lab.yaml: edit that instead
{
  description = "hearth of lab nixos-native";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  inputs.disko = {
    url = "github:nix-community/disko";
    inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, disko, ... }:
    {
      nixosConfigurations.hearth = nixpkgs.lib.nixosSystem {
        modules = [ ./hosts/hearth disko.nixosModules.disko ];
      };
    };
}
