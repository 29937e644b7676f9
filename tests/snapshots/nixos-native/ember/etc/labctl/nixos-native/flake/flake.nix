# made by labctl from lab.yaml: edit that instead
{
  description = "ember of lab nixos-native";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  inputs.disko = {
    url = "github:nix-community/disko";
    inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, disko, ... }:
    {
      nixosConfigurations.ember = nixpkgs.lib.nixosSystem {
        modules = [ ./hosts/ember disko.nixosModules.disko ];
      };
    };
}
