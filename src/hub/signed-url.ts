/** What a signed storage URL says about itself. */

/**
 * When the signature of `url` expires, in ms since 1970, as far as the URL says: `Expires` (CloudFront, old S3),
 * `X-Amz-Date` and `X-Amz-Expires` (S3, also behind Xet), their `X-Goog-` twins, `se` (Azure). The earliest counts.
 */
export function signatureExpiryMs(url: string): number | undefined {
  if (!URL.canParse(url)) return undefined
  const query = new Map<string, string>()
  for (const [name, value] of new URL(url).searchParams) query.set(name.toLowerCase(), value)
  const times = [
    epochMs(query.get('expires')),
    signedAtMs(query.get('x-amz-date'), query.get('x-amz-expires')),
    signedAtMs(query.get('x-goog-date'), query.get('x-goog-expires')),
    isoMs(query.get('se')),
  ].filter((time) => time !== undefined)
  return times.length > 0 ? Math.min(...times) : undefined
}

function epochMs(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{9,12}$/.test(text) ? Number(text) * 1000 : undefined
}

function signedAtMs(date: string | undefined, seconds: string | undefined): number | undefined {
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date ?? '') ?? []
  if (year === undefined || seconds === undefined || !/^\d{1,9}$/.test(seconds)) return undefined
  const signedAt = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  return Number.isNaN(signedAt) ? undefined : signedAt + Number(seconds) * 1000
}

function isoMs(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{4}-\d\d-\d\d(T[\d:.]+Z)?$/.test(text)) return undefined
  const time = Date.parse(text)
  return Number.isNaN(time) ? undefined : time
}
