# Everything here is a short name for a command that also works without just.

# What users run: both programs, static.
build:
    cargo build --release

# The whole test command of the README; `just test unit netns` runs only those tiers.
test *TIERS:
    tests/run {{TIERS}}

# A small cluster in network namespaces, proven with packets.
lab *ARGS: build
    target/release/hostgw lab {{ARGS}}

# ADD, DEL, routes and rest against the reference plugins, `ip -batch` and the kernel's floor; `--check` holds budgets.
bench *ARGS: build
    target/release/hostgw-bench --reference "$(tests/reference/build)" {{ARGS}}

# What is checked without running anything.
lint:
    tests/run lint

# Every fuzz target for so many seconds.
fuzz SECONDS="30":
    fuzz/run {{SECONDS}}

# hostgw on real Kubernetes in namespaces, as root; `just cluster --keep` leaves it for looking around.
cluster *ARGS:
    tests/cluster/run {{ARGS}}
