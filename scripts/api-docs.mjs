/**
 * Writes docs/api.md from the doc comments and the declarations of what package.json exports: one page, each
 * name with what it is for and its declaration as the compiler wrote it.
 *
 * `node scripts/api-docs.mjs [--check]`; with --check nothing is written, and a page that is out of date is a
 * failure.
 *
 * Our own, on top of the compiler, because TypeDoc makes a page per entry point, repeats what is inherited,
 * and brings 24 MB of packages (docs/notes/0002-dependencies.md).
 */
import * as fs from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { buildTs } from './build-ts.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const page = join(root, 'docs', 'api.md')
const kinds = ['Functions', 'Classes', 'Types', 'Values']

const { name: packageName, exports: packageExports } = JSON.parse(
  fs.readFileSync(join(root, 'package.json'), 'utf8'),
)

/** What users import -> the declaration file behind it. */
const entries = Object.entries(packageExports)
  .filter(([, target]) => target.types !== undefined)
  .map(([path, target]) => ({ specifier: packageName + path.slice(1), file: join(root, target.types) }))

function main() {
  buildTs()
  const missing = entries.filter(({ file }) => !fs.existsSync(file))
  if (missing.length > 0) {
    throw new Error(`No such entry point: ${missing.map(({ file }) => relative(root, file)).join(', ')}`)
  }
  const { text, hidden } = render()
  const current = fs.existsSync(page) ? fs.readFileSync(page, 'utf8') : ''
  if (text === current) return
  if (process.argv.includes('--check')) {
    throw new Error('docs/api.md is out of date: run `npm run docs` and commit what it writes.')
  }
  fs.writeFileSync(page, text)
  console.log('Wrote docs/api.md')
  // A type that users meet in a signature but cannot import makes them write `Parameters<typeof f>[0]`.
  if (hidden.length > 0)
    console.warn(`docs/api.md: used in signatures, but not exported: ${hidden.join(', ')}`)
}

function render() {
  // `noLib`: the text of the declarations is enough, nobody asks what a Promise is.
  const options = {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    noLib: true,
    types: [],
  }
  const program = ts.createProgram(
    entries.map(({ file }) => file),
    options,
  )
  const checker = program.getTypeChecker()
  const documented = new Set()
  const sections = entries.map((entry) => renderEntry(entry, program, checker, documented))
  const intro =
    '# API\n\nMade by `npm run docs` from the doc comments in `src/`: edit those. ' +
    'One chapter for each thing that can be imported.'
  return { text: `${[intro, ...sections].join('\n\n')}\n`, hidden: hiddenTypes(checker, documented) }
}

function renderEntry({ specifier, file }, program, checker, documented) {
  const source = program.getSourceFile(file)
  const module = checker.getSymbolAtLocation(source)
  const symbols = (module === undefined ? [] : checker.getExportsOfModule(module)).map((symbol) => ({
    name: symbol.name,
    declarations: resolved(checker, symbol).declarations ?? [],
  }))
  const bySort = kinds.map((kind) => {
    const ofKind = symbols.filter(({ declarations }) => kindOf(declarations[0]) === kind)
    if (ofKind.length === 0) return ''
    ofKind.sort((a, b) => (a.name < b.name ? -1 : 1))
    return [`### ${kind}`, ...ofKind.map((symbol) => renderSymbol(symbol, documented))].join('\n\n')
  })
  return [`## \`${specifier}\``, fileComment(source), ...bySort].filter((part) => part !== '').join('\n\n')
}

function resolved(checker, symbol) {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
}

function kindOf(declaration) {
  if (declaration === undefined) return undefined
  if (ts.isFunctionDeclaration(declaration)) return 'Functions'
  if (ts.isClassDeclaration(declaration)) return 'Classes'
  return ts.isVariableDeclaration(declaration) ? 'Values' : 'Types'
}

/** A type and a value of the same name are shown together, and so are overloads. */
function renderSymbol({ name, declarations }, documented) {
  const statements = declarations.map((declaration) => {
    documented.add(declaration)
    return ts.isVariableDeclaration(declaration) ? declaration.parent.parent : declaration
  })
  const docs = statements.map(docOf)
  const code = statements.map(declarationText).join('\n')
  const parts = [
    `#### ${name}`,
    ...docs.map(({ text }) => text),
    `\`\`\`ts\n${code}\n\`\`\``,
    ...docs.flatMap(({ tags, examples }) => [tags.join('\n'), ...examples]),
  ]
  return parts.filter((part) => part.trim() !== '').join('\n\n')
}

function declarationText(statement) {
  const text = statement
    .getText()
    .replace(/^export (default )?/, '')
    .replace(/^declare /, '')
  // The compiler indents by four. Private members are a name without a type, of no use to a reader.
  return text
    .split('\n')
    .filter((line) => !/^ {4}(private |#private)/.test(line))
    .map((line) => line.replace(/^(?: {4})+/, (indent) => ' '.repeat(indent.length / 2)))
    .join('\n')
}

/** A doc comment as Markdown: its text, one line per tag, and the examples. */
function docOf(node) {
  const text = []
  const tags = []
  const examples = []
  for (const doc of node.jsDoc ?? []) {
    text.push(resolveLinks(ts.getTextOfJSDocComment(doc.comment) ?? ''))
    for (const tag of doc.tags ?? []) {
      const isExample = tag.tagName.text === 'example'
      ;(isExample ? examples : tags).push(isExample ? exampleText(tag) : tagText(tag))
    }
  }
  return { text: text.join('\n\n'), tags, examples }
}

/** As written, because the parser takes `{HubError}` for a type and the first word after it for a name. */
function rawText(tag) {
  return tag
    .getText()
    .replace(/^@\w+/, '')
    .replace(/^[ \t]*\* ?/gm, '')
    .trim()
}

function exampleText(tag) {
  const raw = rawText(tag)
  return raw.includes('```') ? raw : `\`\`\`ts\n${raw}\n\`\`\``
}

const tagWords = {
  returns: 'Returns',
  throws: 'Throws',
  see: 'See',
  defaultValue: 'Default:',
  deprecated: 'Deprecated:',
}

function tagText(tag) {
  const body = resolveLinks(rawText(tag).replace(/\s*\n\s*/g, ' '))
  const label = tag.tagName.text
  if (label === 'param') return `- \`${body.replace(/^(\S+)\s*-?\s*/, '$1`: ')}`
  if (label === 'throws') return `- Throws ${body.replace(/^\{(\w+)\}\s*/, '`$1`: ')}`
  return `- ${tagWords[label] ?? label} ${body}`
}

function resolveLinks(markdown) {
  return markdown.replace(/\{@link\s+([\w.]+)\}/g, '`$1`')
}

/** The comment a file opens with, if it stands apart from the first declaration. */
function fileComment(source) {
  const text = source.getFullText()
  const [first] = ts.getLeadingCommentRanges(text, 0) ?? []
  if (first === undefined || !text.slice(first.pos).startsWith('/**')) return ''
  const belongsToDeclaration = source.statements[0]?.jsDoc?.at(-1)?.pos === first.pos
  if (
    belongsToDeclaration &&
    !ts.isImportDeclaration(source.statements[0]) &&
    !ts.isExportDeclaration(source.statements[0])
  ) {
    return ''
  }
  const comment = text.slice(first.pos + '/**'.length, first.end - '*/'.length)
  return comment
    .replace(/^[ \t]*\* ?/gm, '')
    .replace(/@module.*$/m, '')
    .trim()
}

/** Our types that are used in signatures and cannot be imported. */
function hiddenTypes(checker, documented) {
  const hidden = new Set()
  const visit = (node) => {
    if (ts.isTypeReferenceNode(node) || ts.isExpressionWithTypeArguments(node)) {
      const symbol = checker.getSymbolAtLocation(node.typeName ?? node.expression)
      const declaration = symbol && resolved(checker, symbol).declarations?.[0]
      const isOurs = declaration?.getSourceFile().fileName.startsWith(join(root, 'dist'))
      const isLocal = declaration !== undefined && ts.isTypeParameterDeclaration(declaration)
      if (isOurs && !isLocal && !documented.has(declaration)) hidden.add(symbol.name)
    }
    ts.forEachChild(node, visit)
  }
  for (const declaration of documented) visit(declaration)
  return [...hidden].sort()
}

try {
  main()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
