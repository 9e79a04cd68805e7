import { RaftEntryType, type RaftMessage, RaftMessageType } from '../../proto/gen/raft.js';

/**
 * Why a message from the network cannot be handed to the consensus core, or undefined. Only its form is judged: that the
 * content is true is what Raft trusts the members of its cluster for.
 */
export function messageProblem(message: RaftMessage, from: number, to: number): string | undefined {
  if (message.from !== from) return `message of member ${message.from} on the stream of ${from}`;
  if (message.to !== to) return `message to member ${message.to}`;
  if (!(message.type in RaftMessageType) || message.type === RaftMessageType.UNRECOGNIZED) {
    return `message of unknown type ${message.type}`;
  }
  if (message.type === RaftMessageType.RAFT_SNAPSHOT) return 'a snapshot comes as chunks';
  if (message.type === RaftMessageType.RAFT_APPEND) return entriesProblem(message);
  return message.entries.length > 0 ? 'entries outside an append' : undefined;
}

function entriesProblem(message: RaftMessage): string | undefined {
  let index = message.index;
  let term = message.logTerm;
  for (const entry of message.entries) {
    index++;
    if (entry.index !== index) return `entry ${entry.index} where ${index} belongs`;
    if (entry.term < term || entry.term > message.term) {
      return `entry ${index} of term ${entry.term} after ${term} in a message of term ${message.term}`;
    }
    term = entry.term;
    if (entry.type !== RaftEntryType.ENTRY_COMMAND && entry.type !== RaftEntryType.ENTRY_CONF_CHANGE) {
      return `entry ${index} of unknown type ${entry.type}`;
    }
  }
  return undefined;
}
