/** Chunks as the connection hands them over: in batches. */
export async function* batched(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array[]> {
  for await (const chunk of chunks) yield [chunk]
}
