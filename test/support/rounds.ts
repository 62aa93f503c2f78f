/** How often a test with random or many cases repeats: few in `npm test`, many in `npm run test:full`. */
export function rounds(quick: number, full: number): number {
  return process.env['LLMPT_TEST_FULL'] ? full : quick
}
