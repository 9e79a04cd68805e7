/**
 * Servers and mounts have small heaps and many buffers: with V8's parallel collector the main thread waits for helper
 * threads that must first get a core, which on busy cores takes longer than collecting.
 */
const EVERY_PROCESS = ['--single-threaded-gc'];
/**
 * Through chunkservers and mounts go buffers of far more bytes than their heaps have, and V8 begins to mark the heap again
 * whenever 64 MiB of buffers were made. Where it may not mark in steps it first drops the young objects, which is most
 * often enough, for payloads die young; and a heap of 20 MB is marked at once in less time than in steps.
 */
const WITH_PAYLOADS = [...EVERY_PROCESS, '--no-incremental-marking'];

/** Node's flags for a process of this product. @param command its first argument */
export function processFlags(command: string | undefined): readonly string[] {
  return command === 'chunkserver' || command === 'mount' ? WITH_PAYLOADS : EVERY_PROCESS;
}
