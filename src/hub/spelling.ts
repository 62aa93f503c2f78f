/**
 * How the file system spells a name. Some do not tell upper case from lower case (FAT, and NTFS and APFS as they are
 * usually set up), and FAT forgets a dot at the end: there `readme.md` finds what is kept as `README.md`, and two files
 * of one repository can be after the same place.
 */
import { lstat, readdir } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'

/**
 * Whether what is at `path` is kept there under just this name, from below `root` on. Where case matters, that takes
 * one look; elsewhere the folders on the way are listed. Unicode's several ways to write one letter count as the same.
 */
export async function isSpelledSo(root: string, path: string): Promise<boolean> {
  const below = relative(root, path)
  if (!(await answersToOthers(root, below))) return true
  let folder = root
  for (const part of below.split(sep)) {
    if (!(await isListed(folder, part))) return false
    folder = join(folder, part)
  }
  return true
}

/** What is at `path` as the file system spells it, from below `root` on, with `/` between the parts. */
export async function spellingOf(root: string, path: string): Promise<string> {
  const kept: string[] = []
  for (const part of relative(root, path).split(sep)) {
    const names = await readdir(join(root, ...kept)).catch(() => [])
    kept.push(names.find((name) => name === part) ?? names.find((name) => isAlike(name, part)) ?? part)
  }
  return kept.join('/')
}

function isAlike(one: string, other: string): boolean {
  const plain = (name: string): string => name.normalize().toLowerCase().replace(/\.+$/, '')
  return plain(one) === plain(other)
}

/** Whether something is found under another spelling, too; on most systems nothing is. */
async function answersToOthers(root: string, below: string): Promise<boolean> {
  if (below.split(sep).some((part) => part.endsWith('.'))) return true
  const other = withOtherCase(below)
  // Not every letter has one other case that leads back to it: without a plain one, the folders tell.
  if (other === below) return below !== below.toLowerCase() || below !== below.toUpperCase()
  return (await lstat(join(root, other)).catch(() => undefined)) !== undefined
}

/** Turns the letters that every file system without upper and lower case takes for one another, and no others. */
function withOtherCase(text: string): string {
  return text.replace(/[a-z]/gi, (char) => (char < 'a' ? char.toLowerCase() : char.toUpperCase()))
}

/** Names by their folder: a snapshot may have thousands in one, and each of them is looked for. */
const listings = new Map<string, ReadonlySet<string>>()
const maxListings = 100

async function isListed(folder: string, name: string): Promise<boolean> {
  const wanted = name.normalize()
  // A name keeps its spelling for as long as it is there.
  if (listings.get(folder)?.has(wanted)) return true
  const names = new Set((await readdir(folder).catch(() => [])).map((each) => each.normalize()))
  if (listings.size >= maxListings) listings.clear()
  listings.set(folder, names)
  return names.has(wanted)
}
