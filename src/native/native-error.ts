/**
 * Errors born in the addon, made ours: an instance of `NativeError` with the JavaScript stack of the call that
 * asked, which an error from another thread or from an alert has not.
 */
import { NativeError } from '../errors.ts'
import type { AlertError } from './alerts.ts'

/** Where a request was made; holds nothing but a stack. */
export interface CallSite {
  readonly stack?: string
}

/** The stack of the caller of `below`, to be joined to an error that may come later. */
export function callSite(below: (...args: never[]) => unknown): CallSite {
  const site: { stack?: string } = {}
  Error.captureStackTrace(site, below)
  return site
}

interface BornInAddon extends Error {
  readonly operation: string
  readonly category: string
  readonly value: number
}

function isBornInAddon(error: unknown): error is BornInAddon {
  return (
    error instanceof Error &&
    !(error instanceof NativeError) &&
    Reflect.get(error, 'code') === 'ERR_LLMPT_NATIVE'
  )
}

/** `error` as a `NativeError` with the stack of `site`; whatever the addon did not make is returned as it is. */
export function asNativeError(error: unknown, site: CallSite): unknown {
  if (!isBornInAddon(error)) return error
  return withStack(new NativeError(error.message, error), site)
}

/** What an alert calls an error, as an error. */
export function alertError(
  operation: string,
  error: AlertError,
  site: CallSite,
  subject?: string,
): NativeError {
  const message = `${operation}: ${error.message}${subject === undefined ? '' : ` (${subject})`}`
  return withStack(
    new NativeError(message, { operation, category: error.category, value: error.value }),
    site,
  )
}

function withStack(error: NativeError, site: CallSite): NativeError {
  const frames = site.stack?.split('\n').slice(1).join('\n') ?? ''
  error.stack = `${error.name}: ${error.message}\n${frames}`
  return error
}

/** Runs a native call, and throws what it throws as ours. */
export function callNative<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw asNativeError(error, callSite(callNative))
  }
}
