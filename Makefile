# make demo      sets up everything and runs a Python program in a VM of its own
# make test      sets up everything and passes all tests
# make install   puts the binary into ~/.local/bin; elsewhere with PREFIX=/usr/local
# make bench     measures
#
# make help says this. KERNEL_SOURCE=DIRECTORY builds the guest kernel from there where the
# distribution has no linux-source-6.12.

CACHE := $(or $(MATCHLOCK_CACHE),$(HOME)/.cache/matchlock)
TARGET := $(or $(CARGO_TARGET_DIR),target)
MATCHLOCK := $(abspath $(TARGET))/release/matchlock

# Where scripts/setup puts the tools that are no packages of the distribution.
export PATH := $(CACHE)/tools/bin:$(PATH)

PREFIX ?= $(HOME)/.local

.PHONY: help demo test install bench kernel
.NOTPARALLEL:

help:
	@sed -n '/^# \{0,1\}/!q; s/^# \{0,1\}//p' Makefile

demo:
	@scripts/setup
	@$(MAKE) --no-print-directory kernel
	$(MATCHLOCK) image import debian-python <"$$(scripts/make-image debian-python)"
	@echo && echo "this host: $$(uname -sr). In the VM:"
	$(MATCHLOCK) run --image debian-python -i -- python3 - <examples/hello.py

test:
	@scripts/setup --dev
	cargo xtask check
	@$(MAKE) --no-print-directory kernel
	cargo test --locked --workspace --exclude matchlock-tests
	MATCHLOCK_BIN=$(MATCHLOCK) cargo test --locked --package matchlock-tests
	scripts/fuzz --if-possible 5

install:
	@scripts/setup
	@$(MAKE) --no-print-directory kernel
	install -D -m 0755 $(MATCHLOCK) "$(DESTDIR)$(PREFIX)/bin/matchlock"

bench:
	@scripts/setup --bench
	@$(MAKE) --no-print-directory kernel
	MATCHLOCK_BIN=$(MATCHLOCK) cargo xtask bench

# The release binary, and the guest kernel that it boots: minutes for the first time, then cached.
kernel:
	cargo build --locked --release
	$(MATCHLOCK) kernel build $(if $(KERNEL_SOURCE),--source "$(KERNEL_SOURCE)")
