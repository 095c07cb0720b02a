#!/bin/sh
# Compiles trace.bpf.c. Needs clang, llvm and libbpf-dev; its result is
# committed, so that nobody needs them to build Trysail.
set -eu
cd "$(dirname "$0")"
clang -O2 -g -target bpf -D__TARGET_ARCH_x86 -Wall -Werror -Wno-unused-value \
	-I"/usr/include/$(uname -m)-linux-gnu" -c trace.bpf.c -o trace_x86_bpfel.o
llvm-strip -g trace_x86_bpfel.o
