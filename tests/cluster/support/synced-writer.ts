/** Programs for nodeScript: a writer that syncs, and the check of what it wrote. */

/** Appends numbered, synced records until told to stop by the file named; prints how many were acknowledged. */
export const SYNCED_WRITER = `
  const file = fs.openSync(args[0], 'a'); let n = 0;
  while (!fs.existsSync(args[1])) { fs.writeSync(file, String(n).padStart(9) + '\\n'); fs.fsyncSync(file); n++; fs.writeFileSync(args[2], String(n)); }
  console.log(n);`;

/** The records of a SYNCED_WRITER are whole, in order, and no fewer than were acknowledged. */
export const CHECK_RECORDS = `
  const lines = fs.readFileSync(args[0], 'utf8').trimEnd().split('\\n'); const acknowledged = Number(args[1]);
  for (let i = 0; i < lines.length; i++) if (Number(lines[i]) !== i) throw new Error('record ' + i + ' is ' + JSON.stringify(lines[i]));
  if (lines.length < acknowledged) throw new Error(lines.length + ' records, acknowledged ' + acknowledged);`;
