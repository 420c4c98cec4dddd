-- What carries influence: how many edges of each kind are there, with how many parameters?
SELECT g.name AS graph, e.kind, count(*) AS edges, sum(e.n_params)::BIGINT AS parameters
FROM edges AS e JOIN graphs AS g ON g.id = e.graph
GROUP BY g.id, g.name, e.kind
ORDER BY g.id, edges DESC
