# Definitions of several modules → one value, by the rules of NixOS' module system as labctl's modules use them:
# conditions, priorities, order, sets attribute by attribute, lists one after another. There are no option types, so
# texts are never joined: two different ones of one priority are a conflict.
let
  inherit (builtins) all concatLists concatMap filter foldl' head isAttrs isList length map sort;

  is = kind: value: isAttrs value && value._type or null == kind;
  plain = 100;
  middle = 1000;

  # The definitions that count: parts of merges, under conditions that hold, each with its priority and its order.
  discharge = priority: order: value:
    if is "merge" value then concatMap (discharge priority order) value.contents
    else if is "if" value then (if value.condition then discharge priority order value.content else [ ])
    else if is "override" value then discharge value.priority order value.content
    else if is "order" value then discharge priority value.order value.content
    else [ { inherit priority order value; } ];

  strongest = definitions:
    let least = foldl' (a: b: if b.priority < a then b.priority else a) 9999 definitions;
    in filter (each: each.priority == least) definitions;

  isSet = value: isAttrs value && value.type or null != "derivation";

  merge = path: values:
    let
      definitions = strongest (concatMap (discharge plain middle) values);
      found = map (each: each.value) definitions;
    in
    if definitions == [ ] then { _type = "undefined"; }
    else if all isSet found then mergeSets path found
    else if all isList found then concatLists (map (each: each.value) (sort (a: b: a.order < b.order) definitions))
    else if length found == 1 || all (each: each == head found) found then head found
    else throw "`${path}` has conflicting definitions";

  # Which conditions hold is not asked here: they may depend on what is being merged. Hence what nothing defines is marked.
  mergeSets = path: sets:
    let of = name: concatMap (set: if set ? ${name} then [ set.${name} ] else [ ]) sets;
    in builtins.mapAttrs (name: _: merge (if path == "" then name else "${path}.${name}") (of name))
      (foldl' (a: b: a // b) { } sets);
in
merge ""
