# What there is to do here. `make` alone lists it; each target sets up whatever it needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# The system's Python is preferred to one in somebody's home, since sandboxes of other users have to read it too.
PYTHON ?= $(shell for python in /usr/bin/python3 python3; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && exit; \
	done; echo python3)
VENV := .venv
# Arguments for what is run: make run ARGS="--listen 127.0.0.1:9000", make bench ARGS=--readme
ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

# What sandboxes are made of: make run BACKEND=docker
BACKEND ?= native

.PHONY: run
run: build $(if $(filter docker,$(BACKEND)),image,env) ## Build, set up Python and serve on 127.0.0.1:8888, with all data in ./.evercell; BACKEND=docker
	@exec target/release/evercell serve --data-dir ./.evercell --backend $(BACKEND) \
		$(if $(filter docker,$(BACKEND)),,--python-env $(VENV) --kernel-lib kernel-image) $(ARGS)

.PHONY: build
build: prerequisites ## Build the server with optimisations
	@cargo build --release --locked --bin evercell

.PHONY: env
env: prerequisites ## Make the Python environment of the kernels in ./.venv
	@PYTHON="$(PYTHON)" kernel-image/setup-env.sh $(VENV)

.PHONY: image
image: ## Build the image of the kernels for BACKEND=docker; see kernel-image/build-image.sh for BASE, CA, WHEELS, NETWORK
	@kernel-image/build-image.sh

.PHONY: server-image
server-image: build ## Build the image of the kernels and one of the server itself, for deploy/compose.yaml
	@SERVER=target/release/evercell kernel-image/build-image.sh

.PHONY: env-test
env-test: prerequisites
	@PYTHON="$(PYTHON)" kernel-image/setup-env.sh $(VENV) --with-tests

# What tells whether the notebook can be built and tested here: nothing else needs Node.
NODE_READY := node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: web-env
web-env:
	@! $(NODE_READY) || [ web/node_modules/.package-lock.json -nt web/package-lock.json ] || npm --prefix web ci --no-audit --no-fund --loglevel=error

.PHONY: web
web: web-env ## Build the notebook into web/dist, which is part of the program; needs Node 20.19 or newer
	@$(NODE_READY) || { echo "missing: Node 20.19 or newer" >&2; exit 1; }
	npm --prefix web run build

.PHONY: pictures
pictures: web-env env-test ## Take the pictures of the notebook in docs/notebook
	@cargo build --locked --quiet --bin evercell
	SCREENSHOTS="$(CURDIR)/docs/notebook" CHROMIUM="$(CHROMIUM)" npm --prefix web run test:browser -- looks

.PHONY: env-jupyter
env-jupyter: prerequisites
	@PYTHON="$(PYTHON)" tests/jupyter/setup-env.sh .venv-jupyter

.PHONY: test
test: env-test env-jupyter web-env ## Run all tests; as root, those of isolation and rollback once more as an ordinary user, and the stories in containers
	@# All of them, so that one failure does not hide another.
	failed=()
	skipped=$$(mktemp)
	export TEST_SKIPPED=$$skipped
	if command -v cargo-nextest >/dev/null; then
		cargo nextest run --locked || failed+=("Rust tests")
	else
		echo "skipped: a limit per test, since cargo-nextest is not installed; running cargo test"
		cargo test --locked --no-fail-fast --lib --bins --tests || failed+=("Rust tests")
	fi
	cargo test --locked --quiet --doc || failed+=("examples in the documentation")
	tests/as_user.sh || failed+=("isolation and rollback as an ordinary user")
	tests/on_docker.sh || failed+=("stories in containers")
	(cd kernel-image && ../$(VENV)/bin/python -m pytest) || failed+=("Python tests")
	if ! $(NODE_READY); then
		echo "skipped: the notebook's tests, since Node 20.19 or newer is not installed" >> "$$skipped"
	else
		npm --prefix web test --silent || failed+=("the notebook's parts")
		if [ -z "$(CHROMIUM)" ]; then
			echo "skipped: the notebook in a browser, since chromium is not installed" >> "$$skipped"
		else
			cargo build --locked --quiet --bin evercell
			CHROMIUM="$(CHROMIUM)" npm --prefix web run --silent test:browser || failed+=("the notebook in a browser")
		fi
	fi
	sort -u "$$skipped"
	rm -f "$$skipped"
	[ $${#failed[@]} -eq 0 ] || { printf 'failed: %s\n' "$${failed[@]}" >&2; exit 1; }

.PHONY: chaos
chaos: env-test ## Inject a thousand faults and check what is left: make chaos CHAOS_FAULTS=1000 CHAOS_SEED=1
	@CHAOS_FAULTS="$${CHAOS_FAULTS:-1000}" CHAOS_SEED="$${CHAOS_SEED:-$$RANDOM}" \
		cargo test --locked --test it chaos:: -- --nocapture --test-threads 1

.PHONY: lint
lint: env-test web-env ## Check format, lints, documentation, imports and licences; warnings are errors
	@cargo fmt --check
	cargo clippy --locked --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
	cargo test --locked --quiet --test tidy
	$(VENV)/bin/ruff check kernel-image bench examples tests/jupyter
	$(VENV)/bin/ruff format --check kernel-image bench examples tests/jupyter
	if $(NODE_READY); then
		npm --prefix web run --silent check
	else
		echo "skipped: the notebook's sources, and whether web/dist is built from them, since Node 20.19 or newer is not installed"
	fi
	if command -v cargo-deny >/dev/null; then
		cargo deny --log-level error check bans licenses sources
		if cargo deny --log-level off fetch db; then
			cargo deny --log-level error check advisories
		else
			echo "skipped: advisories, since their database cannot be fetched"
		fi
	else
		echo "skipped: licences and advisories, since cargo-deny is not installed"
	fi

.PHONY: fmt
fmt: env-test ## Format Rust and Python
	@cargo fmt
	$(VENV)/bin/ruff format kernel-image bench examples tests/jupyter
	$(VENV)/bin/ruff check --fix kernel-image bench examples tests/jupyter

.PHONY: bless
bless: env-test ## Accept what the frozen snapshots have become: review the diff
	@INSTA_UPDATE=always INSTA_FORCE_PASS=1 cargo test --locked --quiet --lib --bins --tests
	git status --short -- '*.snap' '*.rs'

.PHONY: bench
bench: build env ## Measure, beside Jupyter Kernel Gateway on the same machine in the same run
	@bench/run $(ARGS)

.PHONY: clean
clean: ## Remove what was built, the Python environment included; ./.evercell stays
	@cargo clean
	rm -rf $(VENV) $(VENV).lock .venv-jupyter web/node_modules

# Names everything that is missing at once, with the line that installs it.
.PHONY: prerequisites
prerequisites:
	@missing=() packages=()
	command -v cargo >/dev/null || missing+=("cargo (install Rust from https://rustup.rs)")
	command -v cc >/dev/null || { missing+=("a C compiler"); packages+=(build-essential); }
	if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
		missing+=("Python 3.11 or newer (\`$(PYTHON)\` is not; name another one with PYTHON=python3.12)")
		packages+=(python3 python3-venv)
	elif ! "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null; then
		missing+=("Python's venv")
		packages+=(python3-venv)
	fi
	[ $${#missing[@]} -gt 0 ] || exit 0
	printf 'missing: %s\n' "$${missing[@]}" >&2
	[ $${#packages[@]} -eq 0 ] || printf '\nhint: sudo apt-get install %s fonts-noto-cjk\n' "$${packages[*]}" >&2
	exit 1
