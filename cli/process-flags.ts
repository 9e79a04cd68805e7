/**
 * Node's flags for servers and mounts. Their heaps are small and their buffers many: with V8's parallel collector the
 * main thread waits for helper threads that must first get a core, which on busy cores took longer than collecting
 * (a third more throughput of sequential writes without it, docs/benchmarks.md).
 */
export const PROCESS_FLAGS = ['--single-threaded-gc'];
