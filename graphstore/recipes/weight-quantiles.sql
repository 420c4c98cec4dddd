-- How are the weights of each layer distributed: what would a threshold remove?
SELECT g.name AS graph, l.name AS layer, round(quantile_cont(e.l1, 0.1), 4) AS p10,
       round(quantile_cont(e.l1, 0.5), 4) AS median, round(quantile_cont(e.l1, 0.9), 4) AS p90,
       round(100.0 * count(*) FILTER (e.l1 < 0.01) / count(*), 2) AS percent_below_001
FROM edges AS e
JOIN graphs AS g ON g.id = e.graph
JOIN layers AS l ON l.graph = e.graph AND l.id = e.layer
WHERE e.tensor IS NOT NULL
GROUP BY g.id, g.name, l.id, l.name
ORDER BY g.id, l.id
