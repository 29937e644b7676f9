# Puts model files onto a volume. Arguments: the folder; then path, address, size and SHA-256 of each file, the last
# three empty where they are not known. For BusyBox's shell and tools, and curl.
#
# A download goes on where it broke off. One pod at a time loads a file. What is there is looked at closely once, and
# noted beside it. A token goes to curl by its standard input: arguments can be read by others.
say() { printf '%s\n' "$*" >&2; }

matches() { # FILE SIZE SUM
  [ -z "$2" ] || [ "$(stat -c %s "$1" 2>/dev/null)" = "$2" ] || return 1
  [ -z "$3" ] || [ "$(sha256sum "$1" 2>/dev/null | cut -d ' ' -f 1)" = "$3" ]
}

get() { # URL PART [CURL ARGUMENT...]
  url=$1 part=$2
  shift 2
  curl --fail --location --silent --show-error --retry 8 --retry-connrefused --continue-at - --output "$part" "$@" "$url"
}

load() { # URL PART
  case $1 in
    https://huggingface.co/*)
      if [ -n "${HF_TOKEN-}" ]; then
        printf 'Authorization: Bearer %s' "$HF_TOKEN" | get "$1" "$2" --header @-
        return
      fi ;;
  esac
  get "$1" "$2"
}

fetch() { # PATH URL SIZE SUM
  case $1 in */*) mkdir -p "${1%/*}" ;; esac
  exec 9>"$1.lock"
  flock 9
  if [ -f "$1" ] && [ "$(cat "$1.done" 2>/dev/null)" = "$3 $4" ]; then
    say "$1: there"
    return
  fi
  if [ -f "$1" ] && matches "$1" "$3" "$4"; then
    echo "$3 $4" >"$1.done"
    say "$1: there, and what it should be"
    return
  fi
  [ -n "$2" ] || { say "$1: not on the volume, and labctl knows no address for it: copy it there"; exit 1; }
  say "$1: from $2"
  # curl also fails when the whole file had come already: then only the digest can tell.
  load "$2" "$1.part" || { [ -n "$4" ] && matches "$1.part" "$3" "$4"; } || { say "$1: cannot be had"; exit 1; }
  matches "$1.part" "$3" "$4" || { rm -f "$1.part"; say "$1: not what it should be, and thrown away"; exit 1; }
  mv "$1.part" "$1"
  echo "$3 $4" >"$1.done"
  say "$1: done"
}

cd "$1"
shift
while [ $# -gt 0 ]; do
  fetch "$1" "$2" "$3" "$4"
  shift 4
done
