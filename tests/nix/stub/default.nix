# What stands in for nixpkgs and for other flakes: `names` says which packages and which values of the configuration the
# modules name, each a list of names from the top; they evaluate to symbols. `flake` is the path of a flake.nix.
#
# `units` says what NixOS' own modules define of their units, each a list: the module, the path of the definition, its
# value. They are merged with the modules' definitions, so that a contradiction fails, and left out of the result.
#
# Returns per host the merged definitions as data: a package is { _package = its path; }, a path { _path = …; }, a
# function { _function = true; }. Nothing here knows NixOS' options: labctl's own table judges the result.
{ flake, names, units ? [ ] }:
let
  inherit (builtins) concatMap head isAttrs isFunction isList isPath isString listToAttrs map mapAttrs removeAttrs substring
    tail toString;

  lib = import ./lib.nix // { inherit nixosSystem; };
  merge = import ./merge.nix;

  # A package by where it stands, `pkgs.a.b`; its own name is the last word.
  symbol = name: path: rec {
    type = "derivation";
    inherit name;
    _place = path;
    pname = name;
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
    override = _: symbol "${name}-overridden" path;
    overrideAttrs = override;
    overridePythonAttrs = override;
    withPackages = override;
    bin = symbol "${name}-bin" path;
    out = symbol name path;
    lib = symbol "${name}-lib" path;
  };

  # ["pkgs" "a" "b"] … → { a = { b = symbol; } // symbol; }
  symbols = prefix: paths:
    let firsts = lib.unique (map head paths);
    in listToAttrs (map
      (first: {
        name = first;
        value = let below = map tail (builtins.filter (path: head path == first && tail path != [ ]) paths);
          in symbols "${prefix}.${first}" below // symbol first "${prefix}.${first}";
      })
      firsts);

  writers = listToAttrs (map (name: { inherit name; value = file: _: symbol file "pkgs.${name}"; }) [
    "writeText" "writeShellScript" "writeShellScriptBin" "writeScript"
  ]);
  pkgs = symbols "pkgs" names.pkgs // writers // { inherit lib; };

  # The module argument `utils` (nixpkgs, nixos/lib/utils.nix): a command of systemd's, with nothing left to expand.
  utils.escapeSystemdExecArgs = lib.concatMapStringsSep " "
    (word: builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON "${word}"));

  # What the modules define, and symbols for what they read of NixOS' own.
  overlay = under: over: under // mapAttrs
    (name: value:
      if !(isAttrs value && under ? ${name}) || value.type or null == "derivation" then value
      else if isUndefined value then under.${name}
      else overlay under.${name} value)
    over;
  isUndefined = value: value._type or null == "undefined";

  nixosSystem = { modules, specialArgs ? { }, ... }:
    let
      config = overlay (symbols "config" names.config) definitions;
      arguments = { inherit config lib pkgs utils; options = { }; modulesPath = "/modulesPath"; } // specialArgs;
      load = module:
        if isString module && substring 0 12 module == "/modulesPath" then [ ]
        else if isPath module || isString module then load (import module)
        else if isFunction module then load (module arguments)
        else concatMap load (module.imports or [ ]) ++ [ module ];
      body = module: module.config or (removeAttrs module [ "imports" "options" "_file" "key" "meta" "disabledModules" ]);
      bodies = map body (concatMap load modules);
      definitions = merge bodies;
      modulesOwn = map (row: at row.path row.value) (concatMap (ofHost definitions) units);
      together = merge (bodies ++ modulesOwn);
    in
    { inherit config; definitions = builtins.deepSeq (describe together) (describe definitions); };

  # A row as it is, where its module is enabled; with `<name>` in its path, once for each container.
  ofHost = definitions: row:
    if builtins.all (word: word == builtins.replaceStrings [ "<name>" ] [ "" ] word) row.path
    then lib.optional (enabled definitions row.module) row
    else map (name: row // { path = map (builtins.replaceStrings [ "<name>" ] [ name ]) row.path; })
      (builtins.attrNames (definitions.virtualisation.oci-containers.containers or { }));
  at = path: value: if path == [ ] then value else { ${head path} = at (tail path) value; };
  enabled = definitions: module:
    if module == [ ] then definitions.enable or false == true
    else isAttrs (definitions.${head module} or null) && enabled definitions.${head module} (tail module);

  describe = value:
    if isPath value then { _path = toString value; }
    else if isFunction value then { _function = true; }
    else if isList value then map describe value
    else if isAttrs value && value.type or null == "derivation" then { _package = value._place; }
    else if isAttrs value then mapAttrs (_: describe) (lib.filterAttrs (_: inner: !(isAttrs inner && isUndefined inner)) value)
    else value;

  module = { };
  others = {
    nixpkgs = { inherit lib; legacyPackages.x86_64-linux = pkgs; };
    disko.nixosModules = { disko = module; default = module; };
    sops-nix.nixosModules = { sops = module; default = module; };
    agenix.nixosModules = { age = module; default = module; };
  };
  given = import flake;
  inputs = mapAttrs (name: _: others.${name} or (throw "no flake stands in for the input `${name}`")) given.inputs;
  outputs = given.outputs (inputs // { self = outputs; });
in
mapAttrs (_: system: system.definitions) outputs.nixosConfigurations
