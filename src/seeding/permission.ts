/**
 * For how long a blob may be seeded. Asked before it is, and again every day: a repository can turn private, or be
 * deleted, while its files are being given away. A Hub that is out of order is asked again every hour, and changes nothing
 * for a week; then its silence is a no.
 */
import { allowsSharing, isRefusal, type SharingVerdict, whyNotShared } from '../hub/sharing.ts'

/** Asks whether a file may be given to others now. Rejects only with the signal's reason. */
export type VerdictQuestion = (signal: AbortSignal) => Promise<SharingVerdict>

/** `yes`, `no` for good, or `later`: nobody says. With the reason, for a person. */
export type Permit = { readonly says: 'yes' } | { readonly says: 'no' | 'later'; readonly reason: string }

const dayMs = 24 * 3_600_000
/** How often it is looked at whether a day is over, and a silent Hub is asked again. */
export const lookEveryMs: number = dayMs / 24
const recheckMs = dayMs
const longestSilenceMs = 7 * dayMs
/** Of one blob that several repositories have. */
const maxQuestions = 8

/** The permission to seed one blob: under each name it came, one of which is enough. */
export class Permission {
  readonly #questions = new Map<string, VerdictQuestion>()
  #grantedMs: number | undefined

  /** Another file that has this content. */
  add(label: string, question: VerdictQuestion): void {
    this.#questions.delete(label)
    if (this.#questions.size < maxQuestions) this.#questions.set(label, question)
  }

  /** When the last yes was heard, in ms since 1970; 0 before the first one. */
  get grantedMs(): number {
    return this.#grantedMs ?? 0
  }

  /** Whether a day has passed since the last yes. */
  isDue(nowMs: number): boolean {
    return this.#grantedMs === undefined || nowMs - this.#grantedMs >= recheckMs
  }

  /** @throws The signal's reason. */
  async ask(nowMs: number, signal: AbortSignal): Promise<Permit> {
    const verdicts: SharingVerdict[] = []
    for (const question of this.#questions.values()) {
      const verdict = await question(signal)
      signal.throwIfAborted()
      if (allowsSharing(verdict)) {
        this.#grantedMs = nowMs
        return { says: 'yes' }
      }
      verdicts.push(verdict)
    }
    // One file of which nobody says anything may be the one that everybody may have.
    const open = verdicts.find((verdict) => !isRefusal(verdict))
    if (open === undefined) return { says: 'no', reason: whyNotShared(verdicts[0] ?? 'private') }
    const reason = whyNotShared(open)
    const silentMs = this.#grantedMs === undefined ? 0 : nowMs - this.#grantedMs
    return silentMs < longestSilenceMs
      ? { says: 'later', reason }
      : { says: 'no', reason: `${reason}, for ${Math.floor(silentMs / dayMs)} days` }
  }
}
