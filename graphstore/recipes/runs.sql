-- What was analysed, with which seed, and where are the results?
SELECT r.id, g.name AS graph, r.command, r.seed, r.result_tables
FROM runs AS r LEFT JOIN graphs AS g ON g.id = r.graph
ORDER BY r.id
