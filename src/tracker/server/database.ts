/**
 * What outlives the process: torrents and who published them, in one SQLite file.
 *
 * One process at a time. The file is opened with an exclusive lock, which the kernel takes back from a process that
 * died, so there is no lock file to go stale. What a method has written when it returns survives `kill -9` and, with
 * `synchronous=FULL`, a power cut.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'libsql'
import { ConfigError } from '../../errors.ts'
import { messageOf } from '../../log.ts'
import type { Etag, InfoHash } from '../../values.ts'
import type { Activity } from './swarm-store.ts'

/** A torrent as it is kept, without its bytes. */
export interface TorrentRow {
  readonly id: number
  readonly etag: Etag
  readonly infoHash: InfoHash
  /** Hybrid torrents are in two swarms. */
  readonly infoHashV1: InfoHash | undefined
  readonly announceKey: string
  readonly sizeBytes: number
  readonly pieceLength: number
  readonly completed: number
  readonly createdAtMs: number
  /** When a seeder was last seen; at first, when it was published. */
  readonly seededAtMs: number
  /** Different addresses that published it; counted up to 16. */
  readonly publishers: number
  readonly torrentBytes: number
}

/** A torrent to keep. */
export interface NewTorrent
  extends Pick<TorrentRow, 'etag' | 'infoHash' | 'infoHashV1' | 'announceKey' | 'sizeBytes' | 'pieceLength'> {
  readonly torrent: Uint8Array
}

/** What all torrents take. */
export interface StoredTotals {
  readonly torrents: number
  readonly torrentBytes: number
}

/** One entry for each step of the schema; `user_version` counts those that were taken. Append, never edit. */
const migrations: readonly string[] = [
  `create table settings (name text primary key, value text not null) strict, without rowid;
   create table torrents (
     id integer primary key,
     kind text not null,
     etag text,
     info_hash text not null unique,
     info_hash_v1 text,
     announce_key text not null,
     size integer not null,
     piece_length integer not null,
     status text not null,
     completed integer not null default 0,
     created_at_ms integer not null,
     seeded_at_ms integer not null,
     torrent_bytes integer not null,
     torrent blob not null
   ) strict;
   create index torrents_etag on torrents (etag);
   create index torrents_announce_key on torrents (announce_key);
   create index torrents_info_hash_v1 on torrents (info_hash_v1);
   create index torrents_torrent_bytes on torrents (torrent_bytes);
   create index torrents_seeded_at on torrents (seeded_at_ms);
   create table publishers (
     torrent_id integer not null references torrents (id) on delete cascade,
     network text not null,
     primary key (torrent_id, network)
   ) strict, without rowid;`,
]

const maxPublishers = 16
const columns = `id, etag, info_hash, info_hash_v1, announce_key, size, piece_length, completed, created_at_ms,
  seeded_at_ms, torrent_bytes, (select count(*) from publishers where torrent_id = id) as publishers`

type Statement = Database.Statement<unknown[]>

/** The tracker's database. Close it, or the data directory stays locked while the process lives. */
export class TrackerDatabase {
  readonly #db: Database.Database
  readonly #statements = new Map<string, Statement>()
  readonly #salt: string
  #isClosed = false

  private constructor(db: Database.Database) {
    this.#db = db
    this.#run(`insert or ignore into settings values ('salt', ?)`, randomBytes(16).toString('hex'))
    this.#salt = (this.#one(`select value from settings where name = 'salt'`) as { value: string }).value
  }

  /**
   * Opens the database in `dataDir`, both made if missing.
   *
   * @throws {ConfigError} If another tracker has it open, it cannot be used, or a newer version made it.
   */
  static open(dataDir: string): TrackerDatabase {
    const path = join(dataDir, 'tracker.sqlite')
    try {
      mkdirSync(dataDir, { recursive: true, mode: 0o700 })
      const db = new Database(path)
      // Before WAL: only then does SQLite keep the lock, and need no shared memory file.
      db.pragma('locking_mode = EXCLUSIVE')
      db.pragma('journal_mode = WAL')
      db.pragma('synchronous = FULL')
      db.pragma('foreign_keys = ON')
      migrate(db, path)
      return new TrackerDatabase(db)
    } catch (error) {
      if (error instanceof ConfigError) throw error
      if ((error as { code?: unknown }).code === 'SQLITE_BUSY') {
        throw new ConfigError(`another tracker is using ${dataDir}; give this one a directory of its own`, {
          cause: error,
        })
      }
      throw new ConfigError(`cannot use ${path}: ${messageOf(error)}`, { cause: error })
    }
  }

  /** All torrents of these blobs. */
  torrentsOf(etags: readonly Etag[]): TorrentRow[] {
    const sql = `select ${columns} from torrents
      where kind = 'blob' and etag in (select value from json_each(?)) order by id`
    return this.#all(sql, JSON.stringify(etags)).map(toRow)
  }

  /** By info hash (either of a hybrid's) or announce key. */
  torrentBy(hash: string): TorrentRow | undefined {
    const sql = `select ${columns} from torrents where info_hash = ?1 or announce_key = ?1 or info_hash_v1 = ?1 limit 1`
    return this.#all(sql, hash).map(toRow)[0]
  }

  /** The .torrent file, exactly as published. */
  bytesOf(id: number): Uint8Array | undefined {
    const row = this.#one('select torrent from torrents where id = ?', id) as
      | { torrent: Uint8Array }
      | undefined
    return row?.torrent
  }

  /** Keeps a torrent, in place of another if one has to go for it. */
  insert(torrent: NewTorrent, network: string, nowMs: number, replacedId: number | undefined): void {
    this.#db.transaction(() => {
      if (replacedId !== undefined) this.delete(replacedId)
      const { lastInsertRowid } = this.#run(
        `insert into torrents (kind, etag, info_hash, info_hash_v1, announce_key, size, piece_length, status,
           created_at_ms, seeded_at_ms, torrent_bytes, torrent)
         values ('blob', ?, ?, ?, ?, ?, ?, 'active', ?, ?, ?, ?)`,
        torrent.etag,
        torrent.infoHash,
        torrent.infoHashV1 ?? null,
        torrent.announceKey,
        torrent.sizeBytes,
        torrent.pieceLength,
        nowMs,
        nowMs,
        torrent.torrent.length,
        Buffer.from(torrent.torrent),
      )
      this.addPublisher(Number(lastInsertRowid), network)
    })()
  }

  /** Counts one more address behind a torrent. Addresses are kept as salted hashes: only whether they differ matters. */
  addPublisher(id: number, network: string): void {
    this.#run(
      `insert or ignore into publishers select ?1, ?2
       where (select count(*) from publishers where torrent_id = ?1) < ${maxPublishers}`,
      id,
      this.#hashOf(network),
    )
  }

  /** Which torrents of a blob were published from this network, by any publisher there. */
  publishedFrom(network: string, etag: Etag): ReadonlySet<number> {
    const sql = `select id from torrents join publishers on torrent_id = id
      where kind = 'blob' and etag = ? and network = ?`
    return new Set(this.#all(sql, etag, this.#hashOf(network)).map((row) => (row as { id: number }).id))
  }

  delete(id: number): void {
    this.#run('delete from torrents where id = ?', id)
  }

  /** Notes when torrents had seeders, and how often they were completed. */
  record(activity: ReadonlyMap<string, Activity>): void {
    if (activity.size === 0) return
    this.#db.transaction(() => {
      for (const [key, { seededAtMs, completed }] of activity) {
        this.#run(
          `update torrents set seeded_at_ms = max(seeded_at_ms, ?2), completed = completed + ?3
           where announce_key = ?1 or info_hash_v1 = ?1`,
          key,
          seededAtMs ?? 0,
          completed,
        )
      }
    })()
  }

  /** Torrents that had no seeder for longest, `count` of them after the first `skip`. */
  longestUnseeded(count: number, skip: number): TorrentRow[] {
    return this.#all(
      `select ${columns} from torrents order by seeded_at_ms, id limit ? offset ?`,
      count,
      skip,
    ).map(toRow)
  }

  /** Deletes what had its last seeder before then. */
  deleteUnseededSince(timeMs: number): void {
    this.#run('delete from torrents where seeded_at_ms < ?', timeMs)
  }

  totals(): StoredTotals {
    const sql = 'select count(*) as torrents, coalesce(sum(torrent_bytes), 0) as torrentBytes from torrents'
    const { torrents, torrentBytes } = this.#one(sql) as StoredTotals
    return { torrents, torrentBytes }
  }

  /** Leaves one file behind. Idempotent. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    // libsql keeps the file open until every statement was collected, and the lock with it. So the lock is given back
    // by hand: leaving WAL writes everything home, then a read in normal mode releases what exclusive mode held.
    this.#db.pragma('journal_mode = DELETE')
    this.#db.pragma('locking_mode = NORMAL')
    this.#one('select 1 from settings')
    this.#statements.clear()
    this.#db.close()
  }

  #hashOf(network: string): string {
    return createHmac('sha256', this.#salt).update(network).digest('hex').slice(0, 16)
  }

  #statement(sql: string): Statement {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#db.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  #run(sql: string, ...values: unknown[]): Database.RunResult {
    return this.#statement(sql).run(...values)
  }

  #one(sql: string, ...values: unknown[]): unknown {
    return this.#statement(sql).get(...values)
  }

  #all(sql: string, ...values: unknown[]): unknown[] {
    return this.#statement(sql).all(...values)
  }
}

function migrate(db: Database.Database, path: string): void {
  const [row] = db.pragma('user_version') as { user_version: number }[]
  const version = row?.user_version ?? 0
  if (version > migrations.length)
    throw new ConfigError(`${path} was made by a newer version of llmpt-native`)
  db.transaction(() => {
    for (const sql of migrations.slice(version)) db.exec(sql)
    db.exec(`pragma user_version = ${migrations.length}`)
  }).exclusive()
}

interface StoredRow {
  id: number
  etag: string
  info_hash: string
  info_hash_v1: string | null
  announce_key: string
  size: number
  piece_length: number
  completed: number
  created_at_ms: number
  seeded_at_ms: number
  publishers: number
  torrent_bytes: number
}

function toRow(row: unknown): TorrentRow {
  const stored = row as StoredRow
  return {
    id: stored.id,
    etag: stored.etag as Etag,
    infoHash: stored.info_hash as InfoHash,
    infoHashV1: (stored.info_hash_v1 as InfoHash | null) ?? undefined,
    announceKey: stored.announce_key,
    sizeBytes: stored.size,
    pieceLength: stored.piece_length,
    completed: stored.completed,
    createdAtMs: stored.created_at_ms,
    seededAtMs: stored.seeded_at_ms,
    publishers: stored.publishers,
    torrentBytes: stored.torrent_bytes,
  }
}
