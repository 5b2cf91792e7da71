#!/usr/bin/env bash
# Which mistakes would the tests not see? Makes a random sample of small changes ("mutants") to a part of the source, one
# at a time, and tells which of them no test notices.
#
#   tests/mutants.sh [SAMPLE] [SEED]            150 mutants and seed 11, if not said otherwise
#   PART=content tests/mutants.sh …             of http/ and content/; else of the supervisor's policy and the workers
#   KEEP=1 tests/mutants.sh …                   goes on with the sample that an interrupted run has left
#
# Needs cargo-mutants (cargo install --locked cargo-mutants) and a machine with nothing else to do: a test that fails
# for want of time would count as having caught something. It works on a copy of what is committed, whose build is kept
# for the next mutant and the next run. The tests run in three rounds, each on what the round before has left: the unit
# tests, the suites that drive the real server in some of its modes, then the same suites whole.
#
# What is left is in $SCRATCH/mutants.out/missed.txt. `fault.rs` is left out: it exists for the tests alone. So are reason
# phrases, which mean nothing (RFC 9112 §4).
set -euo pipefail
cd "$(dirname "$0")/.."

sample=${1:-150}
seed=${2:-11}
# Not below the repository: the paths of unix sockets must be short.
scratch=${SCRATCH:-/tmp/laneway-mutants}
tree=$scratch/tree

# The first round.
quick=(--lib)
case ${PART:-lanes} in
lanes)
    files=(--file 'src/supervisor/policy/**' --file 'src/worker/**'
        --exclude 'src/worker/fault.rs')
    suites=(serving protocol reload supervision takeover shutdown handoff limits)
    ;;
content)
    files=(--file 'src/http/**' --file 'src/content/**' --exclude-re ' in reason$| reason -> ')
    quick+=(--test http_properties)
    suites=(http_cases http_properties serving limits)
    ;;
*)
    echo "PART is '$PART': lanes or content" >&2
    exit 2
    ;;
esac
targets=()
for suite in "${suites[@]}"; do targets+=(--test "$suite"); done
# One mode of each kind: either driver, threads and processes, and every way to accept.
modes=(threads_epoll:: processes:: threads_shared:: processes_handoff::)

if [[ -z ${KEEP:-} ]]; then
    rm -rf "$scratch/mutants.out" "$scratch/mutants.out.old" "$scratch/sample"
    # A checkout touches only what has changed, so that cargo builds no more than that.
    [[ -d $tree ]] || git clone -q --shared --no-checkout . "$tree"
    git -C "$tree" fetch -q "$PWD" HEAD
    git -C "$tree" checkout -q --force --detach FETCH_HEAD
    # Deleted fields of structs are made all, some ten, whatever --re says (cargo-mutants 27.1).
    (cd "$tree" && cargo mutants --list --colors never "${files[@]}") | grep -v ': delete field ' |
        shuf -n "$sample" --random-source=<(yes "$seed") >"$scratch/sample"
fi
mapfile -t names <"$scratch/sample"
chosen=()
for name in "${names[@]}"; do
    chosen+=(--re "^$(printf %s "$name" | sed 's/[][\.*^$+?(){}|/]/\\&/g')\$")
done
printf '%s mutants, seed %s, and the deleted fields\n' "${#names[@]}" "$seed"

round() {
    local what=$1
    shift
    printf '\n== %s\n' "$what"
    # 2: some were missed, 3: some took too long; both are what is looked for.
    (cd "$tree" && cargo mutants --in-place --iterate --output "$scratch" --colors never --no-shuffle --caught \
        --build-timeout 900 --timeout 600 "${files[@]}" "${chosen[@]}" "$@") || [[ $? == [23] ]]
}

round 'unit tests' -- --locked "${quick[@]}"
round 'suites, some modes' -- --locked "${targets[@]}" -- "${modes[@]}"
round 'suites, whole' -- --locked "${targets[@]}"

printf '\nnot seen by any test:\n'
cat "$scratch/mutants.out/missed.txt"
