-- What carries influence: how many edges of each kind are there, with how many parameters?
SELECT g.name AS graph, b.kind, sum(b.n_edges)::BIGINT AS edges,
       sum(coalesce(k.parameters, b.n_edges))::BIGINT AS parameters
FROM blocks AS b
JOIN graphs AS g ON g.id = b.graph
LEFT JOIN (SELECT block, sum(n_params) AS parameters FROM kernels GROUP BY block) AS k ON k.block = b.id
WHERE b.n_edges > 0
GROUP BY g.id, g.name, b.kind
ORDER BY g.id, edges DESC
