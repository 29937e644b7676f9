# The functions of nixpkgs' `lib` that labctl's modules may call, written from their documentation. What is not here makes
# the evaluation fail: add it together with its use.
let
  inherit (builtins) attrNames concatLists filter isAttrs listToAttrs map;
in
rec {
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkForce = mkOverride 50;
  mkDefault = mkOverride 1000;
  mkOrder = order: content: { _type = "order"; inherit order content; };
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;

  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  optionalString = condition: text: if condition then text else "";
  singleton = value: [ value ];
  flatten = value: if builtins.isList value then concatLists (map flatten value) else [ value ];
  unique = builtins.foldl' (seen: each: if builtins.elem each seen then seen else seen ++ [ each ]) [ ];

  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: of: listToAttrs (map (name: nameValuePair name (of name)) names);
  mapAttrs' = of: set: listToAttrs (map (name: of name set.${name}) (attrNames set));
  mapAttrsToList = of: set: map (name: of name set.${name}) (attrNames set);
  filterAttrs = keeps: set: listToAttrs (map (name: nameValuePair name set.${name}) (filter (name: keeps name set.${name}) (attrNames set)));
  attrByPath = path: default: set:
    if path == [ ] then set
    else if isAttrs set && set ? ${builtins.head path} then attrByPath (builtins.tail path) default set.${builtins.head path}
    else default;
  recursiveUpdate = old: new: old // builtins.mapAttrs
    (name: value: if isAttrs value && isAttrs (old.${name} or null) then recursiveUpdate old.${name} value else value) new;

  inherit (builtins) concatLists concatStringsSep;
  concatMapStringsSep = between: of: values: concatStringsSep between (map of values);
  escapeShellArg = value: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;

  getName = package: package.pname or (builtins.parseDrvName package.name).name;
  getExe = package: "${package}/bin/${package.meta.mainProgram or (getName package)}";
  getExe' = package: program: "${package}/bin/${program}";
  getBin = package: package;
  getLib = package: package;
  makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
  versionAtLeast = a: b: builtins.compareVersions a b >= 0;
  versionOlder = a: b: builtins.compareVersions a b < 0;
}
