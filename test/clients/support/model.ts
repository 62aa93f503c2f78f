/** The repository of a model that transformers.js can load, from the fixtures. */
import { readFileSync } from 'node:fs'
import { type FileTree, noiseBytes } from '../../../src/demo/hub.ts'

const fixture = (name: string): Buffer => readFileSync(new URL(`../fixtures/${name}`, import.meta.url))

/** What a tokenizer is made of. */
export const tokenizerFiles: FileTree = {
  'config.json': fixture('config.json'),
  'tokenizer.json': fixture('tokenizer.json'),
  'tokenizer_config.json': fixture('tokenizer_config.json'),
}

/** With a model of a few hundred bytes. */
export const smallTransformersFiles: FileTree = {
  ...tokenizerFiles,
  'onnx/model.onnx': fixture('model.onnx'),
}

/** With the same model, made large enough for a swarm by a description of 1.3 MiB; another one for each seed. */
export function largeTransformersFiles(seed: string): FileTree {
  const text = Buffer.from(noiseBytes(seed, 700_000).toString('hex'))
  const docString = 6
  const length = [0, 7, 14].map((shift) => ((text.length >> shift) & 127) | (shift < 14 ? 128 : 0))
  const field = Buffer.from([(docString << 3) | 2, ...length])
  return { ...tokenizerFiles, 'onnx/model.onnx': Buffer.concat([fixture('model.onnx'), field, text]) }
}
