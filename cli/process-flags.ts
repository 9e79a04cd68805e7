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
const WITH_PAYLOADS = ['--no-incremental-marking'];
/**
 * The code behind names is broad and flat: with its default bounds V8's optimising compiler puts the same small functions
 * (codecs, maps) into many others, and takes a third of a young process' time for that. With smaller bounds the first
 * thousands of operations cost a fifth less, and later ones no more.
 */
const WITH_NAMES = ['--max-inlined-bytecode-size=150', '--max-inlined-bytecode-size-cumulative=200'];

const FLAGS: Readonly<Record<string, readonly string[]>> = {
  metaserver: [...EVERY_PROCESS, ...WITH_NAMES],
  chunkserver: [...EVERY_PROCESS, ...WITH_PAYLOADS],
  mount: [...EVERY_PROCESS, ...WITH_PAYLOADS, ...WITH_NAMES],
};

/** Node's flags for a process of this product. @param command its first argument */
export function processFlags(command: string | undefined): readonly string[] {
  return FLAGS[command ?? ''] ?? EVERY_PROCESS;
}
