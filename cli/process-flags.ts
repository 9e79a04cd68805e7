/**
 * Node's flags for servers and mounts. Their heaps are small and their buffers many: with V8's parallel collector the
 * main thread waits for helper threads that must first get a core, which on busy cores takes longer than collecting.
 */
export const PROCESS_FLAGS = ['--single-threaded-gc'];
