#!/usr/bin/env bash
# Fuzzes the parsers of bytes from clients, proxies and producers: each target of fuzz/ for some seconds.
#
#   fuzz.sh SECONDS              all targets, one after another
#   fuzz.sh SECONDS TARGET...    these of fuzz/fuzz_targets
#
# The seeds are fuzz/corpus/TARGET. Inputs that reach more code are kept under target/fuzz/corpus/TARGET and used by the next run.
# An input that breaks a property is written to fuzz/artifacts/TARGET; fix the cause and add the input to the seeds. Built with
# AddressSanitizer and debug assertions by the stable toolchain (RUSTC_BOOTSTRAP=1); FUZZ_SANITIZER=none builds without.
# cargo-fuzz is installed when it is missing.
# Exit codes: 0 done, 1 an input broke a property, 64 wrong usage, 69 not possible on this machine.
set -uo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly top
all=("$top"/fuzz/fuzz_targets/*.rs)
all=("${all[@]##*/}")
readonly all=("${all[@]%.rs}")
readonly sanitizer=${FUZZ_SANITIZER:-address}
# A head may have 16 KiB; the targets have lower limits for the rest.
readonly input_bytes_max=20000

usage() { sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }

[[ ${1:-} != --help ]] || { usage; exit 0; }
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  usage >&2
  exit 64
fi
readonly seconds=$1
shift
targets=("$@")
[ $# != 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
  [ -f "$top/fuzz/fuzz_targets/$target.rs" ] || { echo "fuzz.sh: no target $target: one of ${all[*]}" >&2; exit 64; }
done

if ! cargo fuzz --version >/dev/null 2>&1; then
  cargo install --quiet --locked cargo-fuzz >&2 || { echo "cargo-fuzz could not be installed"; exit 69; }
fi
command -v c++ >/dev/null || { echo "no C++ compiler here, which libFuzzer needs: install g++"; exit 69; }
cargo fetch --quiet --locked --manifest-path "$top/fuzz/Cargo.toml" || { echo "the dependencies could not be fetched"; exit 69; }

export RUSTC_BOOTSTRAP=1
options=(--fuzz-dir "$top/fuzz" --target-dir "$top/target/fuzz" --sanitizer "$sanitizer")
cd "$top/fuzz" || exit 1
# Build first, so that the seconds of a target are all spent on fuzzing.
cargo fuzz build "${options[@]}" || exit 1
failed=()
for target in "${targets[@]}"; do
  found=$top/target/fuzz/corpus/$target
  mkdir -p "$found"
  cargo fuzz run "${options[@]}" "$target" "$found" "$top/fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len="$input_bytes_max" -timeout=10 -verbosity=0 -print_final_stats=1 2>&1 |
    grep -v '# Uses: \|ecommended dictionary' || failed+=("$target")
done
[ ${#failed[@]} = 0 ] || { echo "fuzz.sh: failed: ${failed[*]} (the inputs are in fuzz/artifacts)" >&2; exit 1; }
