// Prints what the suite says of its tests: id -> kind ("required", "optimal" or "check").
import suites from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'

const kinds = {}
for (const suite of [...suites, surrogate]) {
  for (const test of suite.tests) kinds[test.id] = test.kind ?? 'required'
}
console.log(JSON.stringify(kinds))
