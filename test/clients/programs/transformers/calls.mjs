/** What programs do with transformers.js. */
import { join } from 'node:path'
import { digest } from '../lib/answer.mjs'

/** @param {typeof import('@huggingface/transformers')} transformers */
export function transformersCalls({ AutoModel, AutoTokenizer, pipeline, env }) {
  env.remoteHost = `${process.env.HF_ENDPOINT}/`
  env.cacheDir = join(process.env.HF_HOME, 'transformers')
  env.allowLocalModels = false
  const tensor = ({ dims, type, data }) => ({ dims, type, sha256: digest(data), first: data[0] })
  const model = async ({ repo }) => {
    const progress = new Progress()
    const options = { progress_callback: (event) => progress.hear(event) }
    const tokenizer = await AutoTokenizer.from_pretrained(repo, options)
    const loaded = await AutoModel.from_pretrained(repo, { ...options, dtype: 'fp32' })
    const { last_hidden_state } = await loaded(await tokenizer('hello peers'))
    await loaded.dispose()
    return { output: tensor(last_hidden_state), progress }
  }
  return {
    tokenizer: async ({ repo }) => {
      const tokenizer = await AutoTokenizer.from_pretrained(repo)
      const { input_ids, attention_mask } = await tokenizer(['hello peers', 'world'], { padding: true })
      return {
        ids: input_ids.tolist().flat().map(Number),
        mask: attention_mask.tolist().flat().map(Number),
        text: tokenizer.decode([4, 6, 7]),
      }
    },
    model,
    smallModel: model,
    gated: model,
    embedding: async ({ repo }) => {
      const extract = await pipeline('feature-extraction', repo, { dtype: 'fp32' })
      const output = await extract('hello peers', { pooling: 'mean', normalize: true })
      await extract.dispose()
      return tensor(output)
    },
    refused: async ({ repo }) => void (await AutoTokenizer.from_pretrained(repo)),
  }
}

/** Of each file which kinds of events came, and what the last one said. How many come depends on the chunks. */
class Progress {
  #files = {}

  hear({ file, status, loaded, total }) {
    if (file === undefined) return
    this.#files[file] ??= { statuses: [] }
    const { statuses } = this.#files[file]
    if (!statuses.includes(status)) statuses.push(status)
    if (status === 'progress') Object.assign(this.#files[file], { loaded, total })
  }

  toJSON() {
    return Object.fromEntries(Object.entries(this.#files).sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}
