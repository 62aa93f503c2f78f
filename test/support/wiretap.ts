/** Stands between users and their tracker, and keeps every word they say to it. */
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'

export interface Wiretap extends AsyncDisposable {
  /** What users take for their tracker. */
  readonly url: string
  /**
   * All that was said: request lines, headers and bodies as they came, then what is encoded in them (escaped bytes and
   * torrents in base64) as text and as hex digits.
   */
  said(): string
}

/** The tracker behind it must trust the address that its proxy names. */
export async function startWiretap(trackerUrl: string): Promise<Wiretap> {
  const heard: string[] = []
  const server = createServer(async (req, res) => {
    const body = await buffer(req)
    heard.push(textOf(`${req.method} ${req.url}\n${JSON.stringify(req.headers)}`, body))
    const headers = { ...req.headers, 'x-forwarded-for': req.socket.remoteAddress }
    const onward = request(new URL(req.url ?? '/', trackerUrl), { method: req.method, headers }, (answer) => {
      res.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(res)
    })
    onward.on('error', () => res.destroy())
    res.on('error', () => onward.destroy())
    onward.end(body)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    said: () => heard.join('\n'),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function textOf(head: string, body: Buffer): string {
  const unescaped = head.replace(/%([0-9a-f]{2})/gi, (_, byte) =>
    String.fromCharCode(Number.parseInt(byte, 16)),
  )
  const [, base64 = ''] = /"torrent_data":"([^"]*)"/.exec(body.toString('latin1')) ?? []
  const decoded = [Buffer.from(unescaped, 'latin1'), body, Buffer.from(base64, 'base64')]
  return [head, ...decoded.flatMap((bytes) => [bytes.toString('latin1'), bytes.toString('hex')])].join('\n')
}
