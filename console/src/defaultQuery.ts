/** What the editor shows at first. */
export const DEFAULT_QUERY = `# Runlane: run-control for model evaluations.
#
# 1. Paste a token into the field at the top:   runlane token --sub you --role user
# 2. Run with Ctrl+Enter (or Cmd+Enter). The book icon on the left shows the whole schema.

query Overview {
  queueStatus {
    isPaused
    totalPending
    totalActive
    jobs { type pending active completed failed }
  }
  runs(first: 5) {
    nodes {
      id
      name
      status
      progress { total completed failed percentComplete }
    }
  }
}

# To start a run, make a definition and evaluate it. These models are built in and need no network:
#
# mutation Define {
#   createDefinition(input: {
#     name: "greetings"
#     content: { template: "Say {word} politely.", dimensions: [{ name: "word", values: ["yes", "no"] }] }
#   }) { id scenarioCount }
# }
#
# mutation Start($definition: ID!) {
#   startRun(input: { definitionId: $definition, models: ["mock/echo"] }) { id status }
# }
#
# A run can be paused, resumed, re-prioritised and cancelled at any moment:
#
# mutation Pause($run: ID!) { pauseRun(id: $run) { status } }
`;
