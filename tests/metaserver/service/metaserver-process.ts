import { systemClock } from '../../../common/clock.js';
import { createLogger, type LogLevel } from '../../../common/logger.js';
import { systemPrng } from '../../../common/prng.js';
import { type MetaserverOptions, runMetaserver } from '../../../metaserver/main.js';

/** One metaserver as a process of its own: options as JSON in the first argument; `listening` goes to the parent. */
const options = JSON.parse(process.argv[2] ?? '') as MetaserverOptions;
const log = createLogger({ id: options.id }, (process.env.METASERVER_LOG as LogLevel) ?? 'silent');
const server = await runMetaserver(options, { clock: systemClock, log, prng: systemPrng() });
process.send?.('listening');
process.on('disconnect', () => process.exit(0));
void server.fatal.then(() => process.exit(1));
