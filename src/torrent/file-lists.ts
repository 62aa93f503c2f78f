/** The two ways an info dictionary lists files: `length`/`files` (v1, BEP 3 and 47) and `file tree` (v2, BEP 52). */
import { TorrentError } from '../errors.ts'
import { type BencodeDictionary, type BencodeValue, utf8 } from './bencode.ts'

/** One payload file of a torrent, in the torrent's own order. */
export interface MetainfoFile {
  /** Relative, with `/`. In a single-file torrent the torrent's name; else below a folder of that name. */
  readonly path: string
  readonly sizeBytes: number
  /** Merkle root of the file's 16 KiB blocks, 64 hex digits. v2 only, and not for empty files. */
  readonly piecesRoot: string | undefined
}

/** Files as one of the two lists has them. */
export interface FileList {
  readonly files: readonly MetainfoFile[]
  readonly isSingleFile: boolean
  /** Bytes with padding between files: what v1 pieces cover. */
  readonly paddedBytes: number
  /** Keys of file entries that say more than name, length and root, such as `attr`. */
  readonly extraKeys: readonly string[]
}

const maxNameBytes = 255
const maxPathLength = 4096

/** The v1 list. Pad files take space but are not listed. @throws {TorrentError} */
export function readV1Files(info: BencodeDictionary, name: string): FileList {
  const entries = info.get('files')
  if (entries === undefined) {
    const sizeBytes = sizeOf(info.get('length'))
    const files = [{ path: name, sizeBytes, piecesRoot: undefined }]
    return { files, isSingleFile: true, paddedBytes: sizeBytes, extraKeys: [] }
  }
  if (info.has('length')) fail('both "length" and "files"')
  if (!Array.isArray(entries)) fail('"files" that is not a list')
  const files: MetainfoFile[] = []
  const extraKeys = new Set<string>()
  let paddedBytes = 0
  for (const entry of entries) {
    if (!(entry instanceof Map)) fail('a file that is not a dictionary')
    const sizeBytes = sizeOf(entry.get('length'))
    paddedBytes = safeSum(paddedBytes, sizeBytes)
    if (isPad(entry)) continue
    for (const key of entry.keys()) if (key !== 'length' && key !== 'path') extraKeys.add(key)
    files.push({ path: v1Path(entry), sizeBytes, piecesRoot: undefined })
  }
  refuseClashes(files)
  return { files, isSingleFile: false, paddedBytes, extraKeys: [...extraKeys] }
}

/** The v2 list, depth first in byte order of the names. @throws {TorrentError} */
export function readV2Files(info: BencodeDictionary, name: string, pieceLength: number): FileList {
  const tree = info.get('file tree')
  if (!(tree instanceof Map)) fail('no "file tree"')
  const files: MetainfoFile[] = []
  const extraKeys = new Set<string>()
  const visit = (directory: BencodeDictionary, prefix: string): void => {
    for (const [part, entry] of directory) {
      const path = prefix + checkedPart(part)
      if (!(entry instanceof Map)) fail(`"${path}" that is neither file nor folder`)
      const leaf = entry.get('')
      if (leaf === undefined) visit(entry, `${path}/`)
      else if (entry.size > 1 || !(leaf instanceof Map)) fail(`"${path}" that is both file and folder`)
      else if (!isPad(leaf)) files.push(v2File(leaf, path, extraKeys))
    }
  }
  visit(tree, '')
  const isSingleFile = tree.size === 1 && files.length === 1 && files[0]?.path === name
  let paddedBytes = 0
  for (const file of files)
    paddedBytes = safeSum(paddedBytes, Math.ceil(file.sizeBytes / pieceLength) * pieceLength)
  return { files, isSingleFile, paddedBytes, extraKeys: [...extraKeys] }
}

/** A name that stays inside the folder it is put in, on any system. @throws {TorrentError} */
export function checkedPart(part: string): string {
  if (part === '' || part === '.' || part === '..' || /[/\\\p{Cc}]/u.test(part) || /^[a-z]:/i.test(part)) {
    fail(`the name ${JSON.stringify(part.slice(0, 80))}, which is not a plain file name`)
  }
  if (Buffer.byteLength(part) > maxNameBytes) fail(`a name longer than ${maxNameBytes} bytes`)
  return part
}

/** Text of a bencoded string. @throws {TorrentError} */
export function textOf(value: BencodeValue | undefined, what: string): string {
  const text = value instanceof Uint8Array ? utf8(value) : undefined
  if (text === undefined) fail(`no ${what}, or one that is not UTF-8`)
  return text
}

function v2File(leaf: BencodeDictionary, path: string, extraKeys: Set<string>): MetainfoFile {
  for (const key of leaf.keys()) if (key !== 'length' && key !== 'pieces root') extraKeys.add(key)
  if (path.length > maxPathLength) fail(`a path longer than ${maxPathLength} characters`)
  const sizeBytes = sizeOf(leaf.get('length'))
  const root = leaf.get('pieces root')
  if (sizeBytes === 0) {
    if (root !== undefined) fail(`"${path}", empty, with a root`)
    return { path, sizeBytes, piecesRoot: undefined }
  }
  if (!(root instanceof Uint8Array) || root.length !== 32) fail(`"${path}" without a root of 32 bytes`)
  return { path, sizeBytes, piecesRoot: Buffer.from(root).toString('hex') }
}

function v1Path(entry: BencodeDictionary): string {
  const parts = entry.get('path')
  if (!Array.isArray(parts) || parts.length === 0) fail('a file without a path')
  const path = parts.map((part) => checkedPart(textOf(part, 'file name'))).join('/')
  if (path.length > maxPathLength) fail(`a path longer than ${maxPathLength} characters`)
  // libtorrent prefers this key to "path": two names for one file are two readings of one torrent.
  const other = entry.get('path.utf-8')
  if (other !== undefined) {
    const same = Array.isArray(other) && other.map((part) => textOf(part, 'file name')).join('/') === path
    if (!same) fail(`"${path}" with another name in "path.utf-8"`)
  }
  return path
}

/** BEP 47: attributes are letters. A link (`l`) could point out of the torrent's folder. */
function isPad(entry: BencodeDictionary): boolean {
  const attributes = entry.get('attr')
  if (attributes === undefined) return false
  const letters = textOf(attributes, 'file attributes')
  if (letters.includes('l') || entry.has('symlink path')) fail('a symbolic link')
  return letters.includes('p')
}

function refuseClashes(files: readonly MetainfoFile[]): void {
  if (new Set(files.map((file) => file.path)).size !== files.length) fail('two files of the same name')
}

function sizeOf(value: BencodeValue | undefined): number {
  if (typeof value !== 'number' || value < 0) fail('a file without a size')
  return value
}

function safeSum(a: number, b: number): number {
  if (!Number.isSafeInteger(a + b)) fail('more bytes than a number can hold')
  return a + b
}

function fail(what: string): never {
  throw new TorrentError(`the torrent has ${what}`)
}
