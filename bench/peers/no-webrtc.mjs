/**
 * `node --import ./no-webrtc.mjs`: WebTorrent's WebRTC package, whose binary is downloaded or compiled when it is
 * installed with scripts, is replaced by an empty one. Peers over TCP do not use it.
 */
import { register } from 'node:module'

const stub = `
  export class RTCPeerConnection {}
  export class RTCSessionDescription {}
  export class RTCIceCandidate {}
  export default {}
`
const hooks = `
  const stub = ${JSON.stringify(`data:text/javascript,${encodeURIComponent(stub)}`)}
  export function resolve(specifier, context, nextResolve) {
    const isWebrtc = /^(webrtc-polyfill|node-datachannel)(\\/|$)/.test(specifier)
    return isWebrtc ? { url: stub, shortCircuit: true } : nextResolve(specifier, context)
  }
`
register(`data:text/javascript,${encodeURIComponent(hooks)}`)
