/** The words for whether a file may be shared; who finds that out is `visibility.ts`. */
import type { Openness } from './visibility-memory.ts'

/**
 * `on-request`: not public, and its repository was named. `unknown`: the Hub says nothing now. `not-asked`: enough small
 * files of its repository were asked about.
 */
export type SharingVerdict = Openness | 'on-request' | 'unknown' | 'not-asked'

/** Whether a verdict allows to share. */
export function allowsSharing(verdict: SharingVerdict): boolean {
  return verdict === 'public' || verdict === 'on-request'
}

/** Whether a verdict is the Hub's no. What is neither a yes nor a no may become one. */
export function isRefusal(verdict: SharingVerdict): boolean {
  return verdict === 'gated' || verdict === 'private'
}

/** Why something is not shared, for a person; goes on after "because" or a colon. */
export function whyNotShared(verdict: SharingVerdict): string {
  if (verdict === 'gated') return 'its repository is gated: not everybody may see it at the Hub'
  if (verdict === 'private') return 'its repository is private or gone: not everybody may see it at the Hub'
  if (verdict === 'not-asked') return 'its repository has too many small files to ask about each of them now'
  return 'the Hub does not answer whether everybody may see it'
}
