/** The package carries no types. What it decodes is `unknown` to us until it was looked at. */
declare module 'bencode' {
  const bencode: {
    decode(data: Uint8Array): unknown
    encode(data: unknown): Uint8Array
  }
  export default bencode
}
